"""The report page and its figures: results in, one offline HTML file, SVG, PNG and Markdown out.

    sources           reads result folders, the newest of each kind         files in
    *_view, ratios    figures in order, a ratio as a row
    answers           the six lines that the page opens with
    codec_*           a bench as charts and tables
    spectrum, timeline, rate_curve      load runs and searches
    call_cpu, stack_ladder, end_to_end  servers and stacks
    contents          puts all of it in order, as a `document` of `chart`s and tables
    vega_lite         a `chart` as a Vega-Lite specification
    chart_images      which becomes SVG, PNG, or what the page's JavaScript draws
    web               the document as HTML, with page.css and page.js
    markdown          the document as figures.md
    write             puts them where they belong                           files out

There is one document, and three ways to show it: a number on the page is the number in the
README. Nothing is typed by hand: each sentence and caption is made of figures, and a figure that
is void keeps its reason wherever it goes.
"""
