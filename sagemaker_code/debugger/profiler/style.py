"""The profiler page's style sheet; light and dark follow the reader's system."""

STYLE = """
:root { --ink: #1b2430; --soft: #5d6b7c; --paper: #f5f7fa; --card: #fff; --rule: #e2e8f0; --c1: #2f6fde;
  --c2: #12a37f; --c3: #e08a1e; --c4: #d14d72; --c5: #8a63d2; --act: #d64545; --note: #c98a12; --good: #1f9d61
  }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf2; --soft: #94a3b8; --paper: #10151c;
  --card: #18202b; --rule: #2b3645; --c1: #6aa3ff; --c2: #3fd0a8; --c3: #f3ac4f; --c4: #f07a9b; --c5: #b094f0
  } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
header { padding: 28px 32px 20px; background: linear-gradient(120deg, #16324f, #2f6fde); color: #fff }
h1 { margin: 0 0 14px; font-size: 24px; font-weight: 650 }
h2 { margin: 0 0 12px; font-size: 18px }
h3 { margin: 18px 0 6px; font-size: 14px; color: var(--soft); font-weight: 600 }
.tiles { display: flex; flex-wrap: wrap; gap: 12px }
.tiles div { background: #ffffff22; border-radius: 10px; padding: 8px 18px; font-size: 13px }
.tiles b { display: block; font-size: 21px }
nav { position: sticky; top: 0; background: var(--card); border-bottom: 1px solid var(--rule);
  padding: 8px 28px; display: flex; flex-wrap: wrap; gap: 4px 16px; z-index: 2 }
nav a { color: var(--soft); text-decoration: none; font-size: 13px }
nav a:hover { color: var(--c1) }
main { max-width: 1080px; margin: 0 auto; padding: 20px }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 20px 22px;
  margin-bottom: 18px; scroll-margin-top: 70px }
svg { width: 100%; height: auto; display: block }
.grid { stroke: var(--rule) }
.tick { fill: var(--soft); font-size: 11px }
.c1 { stroke: var(--c1); fill: var(--c1) }
.c2 { stroke: var(--c2); fill: var(--c2) }
.c3 { stroke: var(--c3); fill: var(--c3) }
.c4 { stroke: var(--c4); fill: var(--c4) }
.c5 { stroke: var(--c5); fill: var(--c5) }
.line { fill: none; stroke-width: 1.6 }
.band { stroke: none; opacity: .16 }
.dot { stroke: none; opacity: .75 }
.bar { stroke: none }
.box { fill-opacity: .25 }
.median { stroke: var(--ink); stroke-width: 2 }
.k1 { background: var(--c1) }
.k2 { background: var(--c2) }
.k3 { background: var(--c3) }
.k4 { background: var(--c4) }
.k5 { background: var(--c5) }
.legend { font-size: 12.5px; color: var(--soft) }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin: 0 5px 0 12px;
  vertical-align: -1px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin-top: 8px }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--rule);
  padding: 6px 10px }
td { padding: 7px 10px; border-bottom: 1px solid var(--rule); vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums }
.small { font-size: 12px; color: var(--soft); max-width: 220px }
.state { border-radius: 99px; padding: 2px 10px; font-size: 12px; white-space: nowrap; background: var(--rule)
} tr.fired .state { background: var(--act); color: #fff }
tr.quiet .state { background: var(--good); color: #fff }
.advice { border-left: 5px solid var(--note); background: var(--paper); border-radius: 8px; padding: 10px
16px;
  margin-bottom: 10px }
.advice p { margin: 2px 0 0 }
.advice.act { border-color: var(--act) }
.advice.good { border-color: var(--good) }
.none { color: var(--soft); font-style: italic; margin: 4px 0 }
.row { display: grid; grid-template-columns: minmax(140px, 32%) 1fr 130px; gap: 12px; align-items: center;
  font-size: 13px; margin: 4px 0 }
.what { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.track { background: var(--paper); border-radius: 6px; height: 14px; overflow: hidden }
.fill { display: block; height: 100%; border-radius: 6px }
.much { color: var(--soft); font-variant-numeric: tabular-nums }
.split { display: flex; border-radius: 8px; overflow: hidden; color: #fff; font-size: 12.5px; margin-bottom:
8px } .split span { padding: 5px 10px; white-space: nowrap; overflow: hidden }
"""
