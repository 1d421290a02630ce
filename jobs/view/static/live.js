// Asks the server again and again for what is new, for as long as somebody looks at the page.

const SOONEST = 2000; // milliseconds between two answers
const SHARE = 5; // and this many times as long as the last answer took: a busy machine is left alone
const TROUBLED = 3000;

/**
 * Call `refresh` again and again. A page that nobody sees asks for nothing; seen again, it asks at once.
 *
 * @param refresh asks the server and shows what has changed; returns a sentence about what is wrong, empty where nothing
 *   is, or milliseconds, where it wants to be called again so soon
 * @param fail takes the sentence, empty when all is well again
 * @returns a function that asks at once
 */
export const follow = (refresh, fail) => {
  let timer = 0;
  let asking = false;
  let again = false;

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
      const result = await refresh();
      fail(typeof result === "string" ? result : "");
      if (!result) wait = Math.max(SOONEST, SHARE * (performance.now() - begin));
      else if (typeof result === "number") wait = result;
    } catch (error) {
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
