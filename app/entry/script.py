"""The script that `streamlit run` runs.

It stands in a folder of its own: of a folder `pages` beside its script streamlit makes pages by
itself, and an address such as `/heads` would run that file alone, before the workbench is set up.
"""

from attnscope.app.workbench import main

if __name__ == "__main__":
    main()
