"""Colours and layout of the page, in light and dark, for desktops and phones."""

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --card: #f4f3ee; --ink: #1d2433; --soft:
  #5c6577; --line: #d9d8d0; --ours: #1f6feb; --other: #8a93a5; --good: #1a7f4b; --bad: #c0392b;
  --c1: #1f6feb; --c2: #d9730d; --c3: #1a7f4b; --c4: #8250df; --c5: #b3286b; --c6: #5c6577; }
@media (prefers-color-scheme: dark) { :root { --paper: #12151c; --card: #1b202a; --ink: #e6e9ef;
  --soft: #a0a9ba; --line: #353c4a; --ours: #6cb0ff; --other: #7d879a; --good: #56c98a; --bad:
  #ff8072; --c1: #6cb0ff; --c2: #ffae57; --c3: #56c98a; --c4: #c297ff; --c5: #ff8ac0; --c6:
  #a0a9ba; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica
  Neue", "Liberation Sans", sans-serif; }
h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 .4rem; letter-spacing:
  -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid
  var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .5rem 0; max-width: 44rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.words { margin: 1.2rem 0; padding: .8rem 1.2rem; border-left: 4px solid var(--ours); background:
  var(--card); }
.words p { margin: .45rem 0; }
.cards { display: grid; gap: .7rem; margin: 1.2rem 0; grid-template-columns: repeat(auto-fit,
  minmax(min(12rem, 45%), 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric:
  tabular-nums; }
.card span { display: block; color: var(--soft); font-size: .85rem; line-height: 1.35; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1rem 2rem; align-items: start; }
figure { margin: .8rem 0; min-width: 0; max-width: 31rem; }
figure h3 { margin: 0 0 .3rem; }
figure svg { display: block; width: 100%; height: auto; font-family: inherit; }
.wide { overflow-x: auto; margin: .5rem 0 1.1rem; background-repeat: no-repeat; background-image:
  linear-gradient(to right, var(--paper) 30%, transparent), linear-gradient(to left, var(--paper)
  30%, transparent), linear-gradient(to right, var(--line), transparent), linear-gradient(to left,
  var(--line), transparent); background-position: 0 0, 100% 0, 0 0, 100% 0; background-size: 3rem
  100%, 3rem 100%, .8rem 100%, .8rem 100%; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: right; padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
td { white-space: nowrap; } td small { color: var(--soft); }
td:first-child { min-width: 7.5rem; white-space: normal; } td.text { white-space: normal;
  min-width: 4rem; }
td.text:last-child { min-width: 11rem; }
tr.best td:first-child { font-weight: 600; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.people { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  gap: 1rem; }
.person { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; min-width: 0; }
.person h3 { margin-top: 0; overflow-wrap: anywhere; }
.person ol { font-size: .93rem; margin: .4rem 0 0; padding-left: 1.6rem; overflow-wrap: anywhere;
  }
.person li small { color: var(--soft); font-variant-numeric: tabular-nums; }
pre { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto;
  font-size: .85rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 30rem) { th, td { padding-right: .6rem; } table { font-size: .85rem; } }
"""
