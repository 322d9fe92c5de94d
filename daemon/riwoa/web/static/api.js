// Requests to the interface, and its stream of events.

const PLACE = "api/v1/";
const KEY = "riwoa-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const headers = () => (token.get() ? { authorization: `Bearer ${token.get()}` } : {});

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(PLACE + path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch {
    throw new ApiError(0, "the page’s server does not answer; is riwoactl web running?");
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, told.error ?? `the server answered ${answer.status}`);
  }
  return answer;
}

/** What lies at a path, with parameters; those that are empty are left out. */
export async function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return (await request(path + query)).json();
}

export const control = async (verb) => (await request(verb, { method: "POST" })).json();

/** Listen for ever: `on` has a function for each kind of event; `lost` is told why where the stream breaks off. */
export async function listen(on, lost) {
  let last = "0";
  for (let wait = 1; ; wait = Math.min(30, 2 * wait)) {
    try {
      const answer = await request("stream", { headers: { "last-event-id": last } });
      wait = 1;
      for await (const event of events(answer.body)) {
        if (event.id) last = event.id;
        on[event.event]?.(JSON.parse(event.data));
      }
      lost(new ApiError(0, "the page’s server has ended"));
    } catch (error) {
      lost(error);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
      const event = Object.fromEntries(fields);
      if (event.data) yield event;
    }
  }
}
