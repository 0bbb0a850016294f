"""Does token credit help? A pre-registered experiment that trains small models on two cores."""
