// Keeps the carbon axis on the energy axis and the quality ticks readable while the reader zooms in plotly's picture.
var plot = document.getElementById('{plot_id}'), busy = false;
plot.on('plotly_relayout', function () {
  if (busy) return;
  var meta = plot.layout.meta, change = {}, x = plot.layout.xaxis.range, y = plot.layout.yaxis.range;
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
  busy = true;
  Plotly.relayout(plot, change).then(function () { busy = false; });
});
