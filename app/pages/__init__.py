"""The pages of the workbench: one file, one page, one function `show`."""
