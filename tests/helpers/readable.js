// Contrast of each visible text and mark with the colour behind it (WCAG 2.2, 1.4.3 and 1.4.11), the worst first; what lacks a name.
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => { const a = top[3] / 255; return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a)).concat(255); };
  const behind = (e) => { const layers = []; for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor)); return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 255]); };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const found = [];
  for (const e of document.querySelectorAll("main *")) {
    const own = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
    const style = getComputedStyle(e);
    if (!own || !e.getClientRects().length || style.visibility === "hidden" || e.tagName === "OPTION") continue;
    const ink = e.closest("svg") ? (style.fill === "none" ? style.color : style.fill) : style.color, back = behind(e);
    found.push([ratio(over(rgba(ink), back), back), own.slice(0, 40)]);
  }
  const marks = [...document.querySelectorAll("#chart circle, #chart path[stroke], .bar i, .how")].map((e) => {
    const style = getComputedStyle(e), ink = e.matches("i") ? style.backgroundColor : e.matches(".how") ? style.borderLeftColor : style.stroke !== "none" ? style.stroke : style.fill, back = behind(e.matches("i") ? e.parentElement : e);
    return [ratio(over(rgba(ink), back), back), e.tagName];
  });
  const named = (e) => e.labels?.length || e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent || e.textContent.trim();
  const unnamed = [...document.querySelectorAll("button, input, select, [role=img], section")].filter((e) => e.getClientRects().length && !named(e)).map((e) => e.outerHTML);
  return {unnamed, text: found.sort((a, b) => a[0] - b[0]), marks: marks.sort((a, b) => a[0] - b[0])};
}
