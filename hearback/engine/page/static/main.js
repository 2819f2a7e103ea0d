"use strict";
/** Start the page. */

(() => {
  /** The links of the page do not change the address, which holds the state. */
  function followLinks() {
    for (const link of document.querySelectorAll('a[href^="#"]')) {
      const target = document.getElementById(link.getAttribute("href").slice(1));
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const place = target.matches("main") ? target : target.querySelector("h2");
        place.tabIndex = -1;
        hearback.goTo(place);
      });
    }
  }

  document.documentElement.classList.add("js");
  followLinks();
  const PARTS = [
    "models",
    "reliability",
    "groups",
    "confusion",
    "threshold",
    "curves",
    "verdicts",
    "recordings",
    "recording",
    "verdictForm",
    "keys",
  ];
  for (const part of PARTS) hearback[part].start();
})();
