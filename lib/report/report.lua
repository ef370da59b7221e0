-- pandoc's tree of the notebook, made ready for Typst: tables, captions, title block, references.
-- A line written to stderr stops the export (typeset.py), so nothing is lost in silence.

local text = pandoc.utils.stringify
local ids = {}          -- identifier -> true for a thing with a number of its own, "heading" or "place"
local headings = {}     -- identifier in small letters -> identifier: JupyterLab keeps capitals in a heading's anchor
local pictures = 0

local LONG = 28         -- rows; a longer table may break over pages
local FULL = 92         -- characters a line of a table holds, about; GAP more for each column
local GAP = 3
local SHORT = 22        -- characters of a body cell that is kept on one line

local function complain(message) io.stderr:write(message .. "\n") end

-- Raw HTML and TeX -----------------------------------------------------------------------------------------------------

local function html_block(el)                 -- outputs in HTML, and HTML in Markdown cells
  if el.format == "html" then return pandoc.read(el.text, "html+tex_math_dollars").blocks end
end
-- Typst of our own is the centred picture of markdown.py: in other people's Markdown it is text.
local OURS = '^#align%(center, image%("picture%d+%.%a+"%)%)%s*$'
local function raw_block(el)
  if el.format == "typst" and not el.text:match(OURS) then return pandoc.CodeBlock(el.text) end
  return html_block(el)
end
local function raw_inline(el)
  if el.format == "typst" then return pandoc.Code(el.text) end
  if el.format == "tex" and el.text:match("^\\begin{") then   -- \begin{align} without dollars
    return pandoc.Math("DisplayMath", el.text)
  elseif el.format == "html" and el.text:match("^<br%s*/?>") then
    return pandoc.LineBreak()
  elseif el.format == "html" and el.text:match("^<img ") then
    return pandoc.utils.blocks_to_inlines(pandoc.read(el.text, "html").blocks)
  end
end
local function count(s, pattern) return select(2, s:gsub(pattern, "")) end
local function delimiters(m)
  local s = m.text:gsub("\\[bB]igg?[lrm]?%s*([%(%)%[%]|\\/])", "%1")   -- \bigl( comes out as a box that stands apart
  s = s:gsub("\\left%s*\\lvert", "\\left|"):gsub("\\right%s*\\rvert", "\\right|")
  s = s:gsub("\\left%s*\\lVert", "\\left\\|"):gsub("\\right%s*\\rVert", "\\right\\|")
  if count(s, "\\l[vV]ert") == count(s, "\\r[vV]ert") then             -- a lone | is spaced as a relation
    s = s:gsub("\\lvert", "\\left|"):gsub("\\rvert", "\\right|")
    s = s:gsub("\\lVert", "\\left\\|"):gsub("\\rVert", "\\right\\|")
  end
  m.text = s
  return m
end

local function harmless(el)                   -- pandoc copies typst:... attributes into its code, and identifiers into labels
  local names = {}
  for name in pairs(el.attributes) do if name:match("^typst") then names[#names + 1] = name end end
  for _, name in ipairs(names) do el.attributes[name] = nil end
  if not el.identifier:match("^[%w%-_.:\128-\255]*$") then el.identifier = "" end
  return el
end

local function rule() return pandoc.RawBlock("typst", "#align(center, line(length: 50%, stroke: hair))") end

-- Pictures named in Markdown cells ----------------------------------------------------------------------------------------

local function picture(img)
  local scheme = img.src:lower():match("^(%a[%w+.-]+):") or img.src:match("^//")
  if scheme and scheme ~= "data" then         -- nothing is fetched: the page must not depend on the network
    return #img.caption > 0 and img.caption or pandoc.Str(img.src)
  end
  if img.src:match("^picture%d+%.%a+$") then return end   -- written by markdown.py
  local ok, kind, data = pcall(pandoc.mediabag.fetch, img.src)
  if not ok or not data then
    complain("no picture " .. img.src:sub(1, 80) .. " beside the notebook")
    return img.caption
  end
  local suffix = ({ ["image/svg+xml"] = "svg", ["image/png"] = "png", ["image/jpeg"] = "jpg", ["image/gif"] = "gif",
                    ["image/webp"] = "webp", ["application/pdf"] = "pdf" })[(kind or ""):gsub(";.*", "")]
  if not suffix then
    complain("picture " .. img.src:sub(1, 80) .. " is of kind " .. tostring(kind) .. ": svg, png, jpg, gif, webp or pdf is possible")
    return img.caption
  end
  local name = "linked" .. pictures .. "." .. suffix
  pictures = pictures + 1
  local file = assert(io.open(name, "wb"))
  file:write(data)
  file:close()
  img.src = name
  return img
end

-- Captioned outputs -------------------------------------------------------------------------------------------------------

local function captioned(d)                   -- the Div made of one output and its caption
  if not d.classes:includes("captioned") then return end
  local tab, image, rest = nil, nil, {}
  for _, b in ipairs(d.content) do
    local found = false
    pandoc.Blocks({ b }):walk {
      Table = function(t) if not tab then tab, found = t, true end end,
      Image = function(i) if not image and b.t ~= "Table" and text(b) == "" then image, found = i, true end end }
    if not found then rest[#rest + 1] = b end
  end
  if tab then
    tab.identifier, tab.caption = d.identifier, pandoc.Caption(rest)
    return tab
  elseif image then
    return pandoc.Figure({ pandoc.Plain { image } }, pandoc.Caption(rest), pandoc.Attr(d.identifier))
  end
  complain("the output " .. d.identifier .. " has a caption but holds neither a table nor a picture")
end

-- Tables ------------------------------------------------------------------------------------------------------------------

local function css(s)
  local t = {}
  for k, v in (s or ""):gmatch("([%w%-]+)%s*:%s*([^;]+)") do t[k] = v:gsub("%s+$", "") end
  return t
end
local function wrapped(contents, maker)       -- maker: inlines -> list of inlines
  return contents:walk { Plain = function(p) return pandoc.Plain(maker(p.content)) end,
                         Para = function(p) return pandoc.Para(maker(p.content)) end }
end
local function strong(x) return { pandoc.Strong(x) } end
local function emph(x) return { pandoc.Emph(x) } end
local function unbroken(x)
  local out = pandoc.Inlines { pandoc.RawInline("typst", "#box[") }
  out:extend(x)
  out:insert(pandoc.RawInline("typst", "]"))
  return out
end
local function paint(c)                       -- a cell's style attribute as Typst's
  local s = css(c.attributes.style)
  local fill, ink = s["background-color"] or "", s.color or ""
  c.attributes, c.identifier, c.classes = {}, "", {}
  if fill:match("^#%x+$") then c.attributes["typst:fill"] = 'rgb("' .. fill .. '")' end
  if ink:match("^#%x+$") and ink ~= "#000000" then c.attributes["typst:text:fill"] = 'rgb("' .. ink .. '")' end
  if s["font-weight"] == "bold" or (tonumber(s["font-weight"]) or 0) >= 600 then
    c.contents = wrapped(c.contents, strong)
  end
  if s["font-style"] == "italic" then c.contents = wrapped(c.contents, emph) end
end
local function each(rows, f)                  -- rows and cells are copies: write them back
  for i, r in ipairs(rows) do
    local cells = r.cells
    for j, c in ipairs(cells) do f(c, i, j, #cells); cells[j] = c end
    r.cells = cells; rows[i] = r
  end
  return rows
end
local function words(c) return (text(c.contents):gsub("\u{a0}", " "):gsub("^%s+", ""):gsub("%s+$", "")) end
local function blank(c) return words(c) == "" end
local function number(s)
  return s == "" or s == "–" or s == "—" or s:lower() == "nan" or s:match("^[+%-−]?inf$") ~= nil or s == "∞" or s == "−∞"
    or s:match("^[%s%+%-−±<>≈~]*%d[%d%s%.,%%eE%+%-−±×%(%)/]*$") ~= nil
end

-- Column of every cell. Rowspans on the left shorten the rows below them; `held` remembers until which row a column is taken.
local function columns_of(rows, f)
  local held = {}
  for i, r in ipairs(rows) do
    local j = 1
    for k, c in ipairs(r.cells) do
      while (held[j] or 0) >= i do j = j + 1 end
      f(c, i, j, k, r)
      for w = j, j + c.col_span - 1 do held[w] = i + c.row_span - 1 end
      j = j + c.col_span
    end
  end
end

local function index_names(cells)             -- how many cells lead a header row that is blank after them (pandas' index names)
  local width = 0
  while cells[width + 1] and not blank(cells[width + 1]) do width = width + 1 end
  for j = width + 1, #cells do if not blank(cells[j]) then return 0 end end
  return width < #cells and width or 0
end

local function fold_index_names(head)         -- the row of index names goes into the row above
  local n = #head.rows
  if n < 2 then return end
  local names, above = head.rows[n].cells, head.rows[n - 1].cells
  local width = index_names(names)
  if width == 0 or #names ~= #above then return end
  for j = 1, width do above[j] = names[j] end
  local rows = {}
  for i = 1, n - 1 do rows[i] = pandoc.Row(i == n - 1 and above or head.rows[i].cells) end
  head.rows = rows
end

local function widths(rows, n)                -- the longest text of each column, in characters
  local w = {}
  for j = 1, n do w[j] = 0 end
  columns_of(rows, function(c, _, j)
    if c.col_span == 1 and j <= n then w[j] = math.max(w[j], utf8.len(words(c)) or #words(c)) end
  end)
  return w
end

local function break_lines(c, limit)          -- text of more than `limit` characters, in lines of about equal length
  local total = utf8.len(words(c)) or 0
  if total <= limit then return end
  local lines = math.ceil(total / limit)
  local goal, used = total / lines, 0
  c.contents = c.contents:walk { Plain = function(p)
    local out = pandoc.Inlines { pandoc.RawInline("typst", "#set par(leading: 0.45em);") }
    for k, x in ipairs(p.content) do
      local size = utf8.len(text(x)) or 0
      local after = p.content[k + 1] and utf8.len(text(p.content[k + 1])) or 0
      local bracket = after > 0 and text(p.content[k + 1]):match("^%(") and used > 0
      if (x.t == "Space" or x.t == "SoftBreak") and (bracket or used + after / 2 >= goal) then
        out:insert(pandoc.LineBreak()); used = 0
      else
        out:insert(x); used = used + math.max(size, 1)
      end
    end
    return pandoc.Plain(out)
  end }
end

local function break_where(rows, wanted)      -- wanted(cell, row, column) -> the characters a line of it may have, or nothing
  columns_of(rows, function(c, i, j, k, r)
    local limit = wanted(c, i, j)
    if limit then
      break_lines(c, limit)
      local list = r.cells; list[k] = c; r.cells = list; rows[i] = r
    end
  end)
end

-- In a table that would fill the line, long column names and the labels of row groups take several lines, and columns come closer.
local function narrow(t, bodies, all)
  local n = #t.colspecs
  local own, cells, total = widths(t.head.rows, n), widths(all, n), 0
  for j = 1, n do total = total + math.max(own[j], cells[j]) + GAP end
  if total <= FULL then return end
  t.attributes["typst:inset"] = "(x: 0.4em, y: 0.42em)"
  local rows = t.head.rows
  break_where(rows, function(c, _, j) return c.col_span == 1 and math.max(cells[j] or 0, 10) end)
  t.head.rows = rows
  for i, b in ipairs(bodies) do
    local own_rows = b.body
    break_where(own_rows, function(c) return c.row_span > 1 and 12 end)
    b.body = own_rows; bodies[i] = b
  end
end

local function spans(rows)
  local found = false
  for _, r in ipairs(rows) do for _, c in ipairs(r.cells) do found = found or (c.col_span > 1 and not blank(c)) end end
  return found
end

local function style_header(t)
  local rows, groups = t.head.rows, spans(t.head.rows)
  local last = #rows
  t.head.rows = each(rows, function(c, i)
    c.attributes["typst:text:weight"] = "600"
    c.attributes["typst:align"] = "bottom"
    if c.col_span > 1 and i < last and not blank(c) then
      c.alignment = "AlignDefault"
      c.attributes["typst:align"] = "center"
      c.attributes["typst:stroke"] = "(bottom: 0.4pt + rgb(\"#1d2433\"))"
    end
  end)
  if groups then t.attributes["typst:column-gutter"] = "0.5em" end
end

local function style_body(rows, n)
  local grouped = false
  for _, r in ipairs(rows) do for _, c in ipairs(r.cells) do grouped = grouped or c.row_span > 1 end end
  return each(rows, function(c, i, _, count)
    local s = words(c)
    local one = s ~= "" and c.row_span == 1 and (number(s) or (utf8.len(s) or #s) <= SHORT)
    if one and s:find("[%s%-/–]") then        -- "92.1 ± 0.3 (5)" and "ResNet-20" stay on one line
      c.contents = wrapped(c.contents, unbroken)
    end
    if grouped and i > 1 and count == n then c.attributes["typst:stroke"] = "(top: 0.4pt + rgb(\"#c9ced8\"))" end
  end)
end

local function align(t, body)                 -- columns of numbers to the right
  local right, n = {}, #t.colspecs
  columns_of(body, function(c, _, j)
    if c.col_span == 1 then right[j] = right[j] ~= false and number(words(c)) end
  end)
  for j, s in ipairs(t.colspecs) do
    t.colspecs[j] = { s[1] ~= "AlignDefault" and s[1] or (right[j] and "AlignRight" or "AlignLeft"), nil }
  end
end

local function tidy(t)
  t.classes, t.attributes = {}, {}
  t.head.rows = each(t.head.rows, paint)
  fold_index_names(t.head)
  local all, bodies = {}, t.bodies
  for i, b in ipairs(bodies) do
    b.body = each(b.body, paint); b.head = each(b.head, paint)
    bodies[i] = b
    for _, r in ipairs(b.body) do all[#all + 1] = r end
  end
  align(t, all)
  narrow(t, bodies, all)
  for i, b in ipairs(bodies) do b.body = style_body(b.body, #t.colspecs); bodies[i] = b end
  t.bodies = bodies
  style_header(t)
  if t.identifier == "" and text(t.caption.long) == "" then t.classes = { "typst:no-figure" } end
  if #all > LONG then                         -- a float cannot go over the page
    return { pandoc.RawBlock("typst", "#[\n#set figure(placement: none)\n#show figure: set block(breakable: true)"),
             t, pandoc.RawBlock("typst", "]") }
  end
  return t
end

-- Title block and sections --------------------------------------------------------------------------------------------------

local function paragraph(b) return b and b.t == "Para" and b.content or nil end
local function emphasis(b) local x = paragraph(b); return x and #x == 1 and x[1].t == "Emph" and x[1].content or nil end
local function is_abstract(b) local x = paragraph(b); return x and x[1].t == "Strong" and text(x[1]) == "Abstract." end

-- "# Title", then *subtitle*, a byline of up to three paragraphs, and **Abstract.** ...; a byline only before an abstract.
local function title_block(blocks, meta)
  local i = 1
  while blocks[i] and blocks[i].t ~= "Header" and text(blocks[i]) == "" and blocks[i].t ~= "Figure" do i = i + 1 end
  if not (blocks[i] and blocks[i].t == "Header" and blocks[i].level == 1) then
    meta.title = meta.title or meta.name
    return blocks
  end
  meta.title = pandoc.MetaInlines(blocks[i].content)
  local rest = i + 1
  if emphasis(blocks[rest]) then meta.subtitle = pandoc.MetaInlines(emphasis(blocks[rest])); rest = rest + 1 end
  local at = rest
  while at < rest + 3 and paragraph(blocks[at]) and not is_abstract(blocks[at]) do at = at + 1 end
  if is_abstract(blocks[at]) then
    local lines = pandoc.Inlines {}
    for k = rest, at - 1 do
      if k > rest then lines:insert(pandoc.LineBreak()) end
      lines:extend(blocks[k].content)
    end
    if at > rest then meta.byline = pandoc.MetaInlines(lines) end
    local x = blocks[at].content
    x:remove(1); if x[1] and x[1].t ~= "Str" then x:remove(1) end
    meta.abstract = pandoc.MetaInlines(x)
    rest = at + 1
  end
  local out = pandoc.Blocks {}
  for k = rest, #blocks do out:insert(blocks[k]) end
  return out
end

local function sections(blocks)               -- ## is the report's first level; the reference list has no number
  local out, open = pandoc.Blocks {}, false
  for _, b in ipairs(blocks) do
    if b.t == "Header" then
      b.level = math.max(1, b.level - 1)
      if open then out:insert(pandoc.RawBlock("typst", "]")); open = false end
      if text(b) == "References" then
        b.classes:insert("unnumbered")
        out:extend { b, pandoc.RawBlock("typst", "#[\n#show: references") }
        open = true
      else
        out:insert(b)
      end
    else
      out:insert(b)
    end
  end
  if open then out:insert(pandoc.RawBlock("typst", "]")) end
  return out
end

local draft = false
local function document(doc)
  draft = doc.meta.draft == true or text(doc.meta.draft or "") == "true"
  doc.blocks = sections(title_block(doc.blocks, doc.meta))
  return doc
end

-- References ------------------------------------------------------------------------------------------------------------------

local function note(id, kind)
  if ids[id] then complain("the label " .. id .. " stands on two things") end
  ids[id] = kind
end
local function see(el) if el.identifier ~= "" then note(el.identifier, true) end end
local function see_header(h)
  if h.identifier == "" then return end
  note(h.identifier, h.classes:includes("unnumbered") and "place" or "heading")
  headings[h.identifier:lower()] = h.identifier
end
local function see_span(s) if s.identifier ~= "" then note(s.identifier, "place") end end
local function see_math(m)
  local id = m.text:match("\\label{([^}]+)}")
  if id then note(id, true) end
end
local function refer(l)                       -- [Table 1](#tbl-x) -> a reference with the right number
  local id = l.target:match("^#(.+)$")
  if not id then return end
  if not ids[id] then id = headings[id:lower()] or id end
  if not ids[id] then
    if not draft then complain("no target for the reference [" .. text(l.content) .. "](" .. l.target .. ")") end
    return l.content
  end
  if ids[id] == true or (ids[id] == "heading" and text(l.content):match("^Section")) then
    return pandoc.RawInline("typst", "#ref(label(\"" .. id .. "\"))")
  end
  l.target = "#" .. id
  return l
end
local function anchor(s)                      -- <span id="ref-x"></span>
  if #s.content == 0 and s.identifier ~= "" then return pandoc.RawInline("typst", "#metadata(none)<" .. s.identifier .. ">") end
end

local marked = { Span = harmless, Div = harmless, Header = harmless, Table = harmless, Figure = harmless, Code = harmless,
                 CodeBlock = harmless, Link = harmless, Image = harmless }

return { { RawBlock = raw_block, RawInline = raw_inline }, marked, { HorizontalRule = rule },
  { Math = delimiters, Image = picture }, { Div = captioned },
  { Table = tidy }, { Pandoc = document },
  { Header = see_header, Table = see, Figure = see, Span = see_span, Math = see_math }, { Link = refer, Span = anchor } }
