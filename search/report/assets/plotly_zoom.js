// Keeps the carbon axis on the energy axis, the quality ticks readable and every word inside while the reader zooms in plotly's picture or
// turns the phone.
var plot = document.getElementById('{plot_id}'), busy = false, fitted = null, pen = document.createElement('canvas').getContext('2d');
function wide(text, font) {
  pen.font = font + ' ' + plot.layout.font.family;
  return pen.measureText(text).width;
}
/** The lines of a text, broken between words, and inside of one that is wider than a line; what stands for a letter of markup stays whole. */
function lines(text, font, room) {
  var found = [''];
  (text.match(/&[^;]*;|\s+|[^\s&]+/g) || []).forEach(function (word) {
    if (wide(found[found.length - 1] + word, font) <= room) return void (found[found.length - 1] += word);
    if (found[found.length - 1].trim()) found.push('');
    (word[0] === '&' ? [word] : Array.from(word.trim())).forEach(function (letter) {
      if (wide(found[found.length - 1] + letter, font) > room) found.push('');
      found[found.length - 1] += letter;
    });
  });
  return found;
}
function heading(change) {
  var room = plot.clientWidth - 24, says = plot.layout.meta.heading, small = plot.layout.title.text.match(/<span[^>]*>/)[0], font = '18px';
  var first = wide(says[0], 'bold ' + font) + wide('  ' + says[1], font) <= room ? ['<b>' + says[0] + '</b>  ' + says[1]]
    : lines(says[0], 'bold ' + font, room).map(function (line) { return '<b>' + line + '</b>'; }).concat(lines(says[1], font, room));
  var all = first.concat(lines(says[2], '12px', room).map(function (line) { return small + line + '</span>'; }));
  change['title.text'] = all.join('<br>');
  change['margin.t'] = (plot.layout.xaxis2 ? 88 : 50) + 24 * all.length;
}
/** A label goes as far beside its point as the picture is wide. */
function labels(change) {
  var axis = plot._fullLayout.xaxis;
  (plot.layout.annotations || []).forEach(function (label, i) {
    var width = wide(label.text.replace(/<[^>]*>/g, ''), 'bold 13px') + 6, right = label.xanchor === 'right', shift = right ? -10 : 12;
    var last = plot.clientWidth - width - 4, first = Math.max(4, Math.min(axis._offset, last)), at = axis._offset + axis.l2p(label.x) + shift - (right ? width : 0);
    change['annotations[' + i + '].xshift'] = shift + Math.max(first, Math.min(at, last)) - at;
  });
}
function fit() {
  var meta = plot.layout.meta, change = {}, x = plot.layout.xaxis.range, y = plot.layout.yaxis.range;
  var now = JSON.stringify([x, y, plot.clientWidth]);
  if (busy || now === fitted) return;
  fitted = now;
  if (plot.layout.xaxis2) change['xaxis2.range'] = [x[0] + meta.carbon_shift, x[1] + meta.carbon_shift];
  if (meta.ticks.length) {
    var kept = [], gap = meta.gap * (y[1] - y[0]);
    meta.ticks.forEach(function (row) {
      if (kept.length < meta.enough) row.forEach(function (tick) {
        if (tick[0] >= y[0] && tick[0] <= y[1] && kept.every(function (k) { return Math.abs(k[0] - tick[0]) >= gap; })) kept.push(tick);
      });
    });
    change['yaxis.tickvals'] = kept.map(function (k) { return k[0]; });
    change['yaxis.ticktext'] = kept.map(function (k) { return k[1]; });
  }
  heading(change);
  labels(change);
  busy = true;
  Plotly.relayout(plot, change).then(function () { busy = false; fit(); });
}
plot.on('plotly_relayout', fit);
fit();
