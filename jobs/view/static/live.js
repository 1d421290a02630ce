// Asks the server again and again for what is new, for as long as somebody looks at the page.

const SOONEST = 2000; // milliseconds between two answers
const SHARE = 5; // and this many times as long as the last answer took: a busy machine is left alone
const TROUBLED = 3000;

/**
 * Call `show` with the server's data whenever they have changed, and `fail` with a sentence when there are none.
 *
 * A page that nobody sees asks for nothing; seen again, it asks at once, and has all that is new since.
 *
 * @param address a function that returns the address to ask
 * @param show takes the data and the response; returns milliseconds, where it wants to be called again so soon
 * @param fail takes a sentence about what is wrong; an empty one when all is well again
 * @param read makes the data of a response
 * @returns a function that asks at once
 */
export const follow = (address, show, fail, read = (response) => response.json()) => {
  let timer = 0;
  let asking = false;
  let again = false;
  let known = "";

  const ask = async () => {
    clearTimeout(timer);
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    const begin = performance.now();
    let wait = TROUBLED;
    try {
      const asked = address();
      const response = await fetch(asked, { cache: "no-cache" });
      if (response.ok) {
        const tag = `${asked} ${response.headers.get("ETag")}`;
        const soon = tag !== known ? await show(await read(response), response) : undefined;
        known = tag;
        fail("");
        wait = Math.max(soon ?? SOONEST, SHARE * (performance.now() - begin));
      } else {
        known = "";
        fail((await response.json()).problem);
      }
    } catch (error) {
      known = "";
      const away = error instanceof TypeError && /fetch/i.test(error.message);
      fail(away ? "The server of this page does not answer: was gatewatch view ended? Trying on." : `This page failed: ${error.message}`);
      if (!away) console.error(error);
    }
    asking = false;
    if (again) {
      again = false;
      ask();
    } else if (!document.hidden) timer = setTimeout(ask, wait);
  };

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) ask();
  });
  ask();
  return ask;
};

/** Show a sentence about what is wrong above a page, or hide it where it is empty. */
export const showProblem = (sentence) => {
  const place = document.querySelector("#problem");
  if (place.textContent !== sentence) place.textContent = sentence;
  place.hidden = !sentence;
  document.querySelector("main").classList.toggle("outdated", Boolean(sentence));
};
