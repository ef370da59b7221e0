"""From an executed notebook to a typeset PDF: nbconvert's exporter `report`, and what notebooks call for figures and tables.

The way of a notebook: `markdown` writes it as one Markdown file with its pictures beside it; `typeset` runs pandoc on it with
`report.lua` (tables, title block, references) and sets the result with Typst in the looks of `report.typ`.
"""
