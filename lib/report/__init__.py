"""From an executed notebook to a typeset PDF: nbconvert's exporter `report`, and what notebooks call to show things.

`markdown` writes the notebook as one Markdown file with its pictures beside it; `typeset` runs pandoc on that with
`report.lua` (tables, title block, references) and sets the result with Typst in the looks of `report.typ`.
"""
