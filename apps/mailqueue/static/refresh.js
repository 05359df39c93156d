// Brings the overview anew without moving anything that somebody is reading with a keyboard or typing into.
(() => {
  const seconds = Number(document.currentScript.dataset.seconds);
  const busy = () => {
    const live = document.getElementById("mq-live");
    return document.hidden || live.contains(document.activeElement) || String(getSelection());
  };
  const refresh = async () => {
    if (busy()) return;
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const shutOut = answer.redirected || answer.status === 401 || answer.status === 403; // the login has ended
    if (shutOut && !busy()) return location.reload();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("mq-live");
    if (fresh && !busy()) document.getElementById("mq-live").replaceWith(fresh);
  };
  setInterval(() => refresh().catch(() => {}), seconds * 1000);
})();
