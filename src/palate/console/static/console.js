// The console's own few lines: a click on the map shows the node beside it.
(() => {
  "use strict";
  document.addEventListener("palate:node", ({ target, detail }) => {
    const panel = document.getElementById("panel");
    if (!panel || target.dataset.panel === undefined) return;
    const query = `?node=${encodeURIComponent(detail.id)}`;
    window.htmx.ajax("GET", `${target.dataset.panel}${query}`, { target: "#panel", swap: "innerHTML" });
    history.replaceState(null, "", query);
  });
})();
