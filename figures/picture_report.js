// Shows where the chosen token of an answer looks, and draws a bar below every token.
(() => {
  const DARKEST = 0.82;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const darken = (canvas, data, token) => {
    const [rows, columns] = data.grid;
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const shade = context.createImageData(columns, rows);
    for (let cell = 0; cell < rows * columns; cell++) {
      const weight = data.levels[token * rows * columns + cell] / 255;
      shade.data[4 * cell + 3] = 255 * DARKEST * (1 - weight);
    }
    context.putImageData(shade, 0, 0);
  };

  const words = (data, token, text) => {
    const lines = Object.entries(data.measures).map(
      ([name, values]) => `${name}: ${values[token] === null ? "not defined" : values[token]}`);
    if (data.peaks) lines.push(`brightest patch: ${(100 * data.peaks[token]).toPrecision(3)} %`);
    return [`“${text.trim()}”`, ...lines].join("\n");
  };

  for (const card of document.querySelectorAll(".seen")) {
    const [canvas, reading, select] =
      ["canvas", ".reading", "select"].map((name) => card.querySelector(name));
    const answers = [...card.querySelectorAll(".answer")].map((element) => {
      const data = JSON.parse(element.querySelector("script").textContent);
      if (data.cells) data.levels = bytes(data.cells);
      return {data, tokens: [...element.querySelectorAll(".token")]};
    });
    const all = answers.flatMap(({tokens}) => tokens);
    let kept = null;

    const show = (choice) => {
      for (const token of all) token.setAttribute("aria-pressed", String(token === kept?.token));
      if (!choice) {
        canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
        reading.textContent = "No token is chosen.";
        return;
      }
      if (choice.data.grid) darken(canvas, choice.data, choice.place);
      reading.textContent = words(choice.data, choice.place, choice.token.textContent);
    };

    for (const {data, tokens} of answers) {
      tokens.forEach((token, place) => {
        const choice = {data, token, place};
        token.addEventListener("mouseenter", () => show(choice));
        token.addEventListener("mouseleave", () => show(kept));
        token.addEventListener("focus", () => { kept = choice; show(choice); });
        token.addEventListener("click", () => { kept = choice; show(choice); });
      });
    }

    const bars = () => {
      const values = (data) => data.measures[select.value] ?? [];
      const largest = Math.max(0, ...answers.flatMap(({data}) => values(data).map((x) => x ?? 0)));
      for (const {data, tokens} of answers) {
        tokens.forEach((token, place) => {
          const share = largest ? Math.max(0, values(data)[place] ?? 0) / largest : 0;
          token.style.setProperty("--bar", share);
        });
      }
    };
    select.addEventListener("change", bars);
    bars();
    const first = card.querySelector(".token.made-up") ?? card.querySelector(".token.there") ?? all[0];
    const owner = answers.find(({tokens}) => tokens.includes(first));
    if (owner) kept = {data: owner.data, token: first, place: owner.tokens.indexOf(first)};
    show(kept);
  }
})();
