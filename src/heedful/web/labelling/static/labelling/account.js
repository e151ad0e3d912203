// Who logs out leaves no draft behind on a machine that others use.
"use strict";

document.getElementById("logout")?.addEventListener("submit", () => {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith("heedful-draft-")) localStorage.removeItem(key);
  } catch { /* a closed store */ }
  sessionStorage.setItem("heedful-left", "1"); // the page that is left does not write its draft again
});
