// The pages work without this file; it adds the overlay's slider and arrow keys.
"use strict";

const KEPT = "disp-opacity";

function showOpacity(slider) {
  const layer = document.getElementById(slider.dataset.layer);
  const value = document.getElementById(slider.dataset.value);
  if (layer) layer.style.opacity = String(slider.valueAsNumber / 100);
  if (value) value.textContent = `${slider.value} %`;
}

function remember(value) {
  try {
    sessionStorage.setItem(KEPT, value);
  } catch {
    // without storage every page begins with its own opacity
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

document.addEventListener("input", (event) => {
  if (event.target.matches("input[data-layer]")) {
    showOpacity(event.target);
    remember(event.target.value);
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("input[data-toggles]")) {
    const part = document.getElementById(event.target.dataset.toggles);
    if (part) part.toggleAttribute("hidden", !event.target.checked);
  }
});

// Arrow keys move between samples, unless something that uses them itself has the focus.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea, [tabindex]")) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`main a[rel="${rel}"]`);
  if (link) link.click();
});

for (const slider of document.querySelectorAll("input[data-layer]")) {
  slider.value = remembered() ?? slider.value;
  showOpacity(slider);
}
