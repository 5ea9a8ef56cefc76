"""What pages of web sites do in the tests, in JavaScript."""

# Asks for everything in every way that fetch and XMLHttpRequest have; returns what could be read of the replies.
ASK = """async ({url, asks, headers, credentials}) => {
  const seen = [], kinds = ["application/json", "text/plain", null];
  const all = [];
  const note = async (asking) => {
    try { const reply = await asking(); seen.push([reply.status, await reply.text()]); }
    catch (error) { seen.push([0, ""]); }
  };
  const xhr = (method, path, body, type) => new Promise((done, fail) => {
    const one = new XMLHttpRequest();
    one.open(method, url + path);
    if (type) one.setRequestHeader("content-type", type);
    for (const [name, value] of Object.entries(headers || {})) one.setRequestHeader(name, value);
    one.withCredentials = credentials === "include";
    one.onload = () => done({status: one.status, text: async () => one.responseText});
    one.onerror = fail;
    one.send(body);
  });
  for (const [method, path, said] of asks) {
    const body = said === null ? undefined : JSON.stringify(said);
    for (const type of body === undefined ? [null] : kinds) {
      const more = type ? {...headers, "content-type": type} : {...headers};
      for (const mode of ["cors", "no-cors"]) {
        const options = {method, mode, credentials, body: type ? body : body && new Blob([body]), headers: more};
        all.push(note(() => fetch(url + path, options)));
      }
      all.push(note(() => xhr(method, path, body, type)));
    }
    if (said !== null) {
      const form = new FormData();
      for (const [name, value] of Object.entries(said)) form.append(name, JSON.stringify(value));
      for (const body of [form, new URLSearchParams(form)])
        all.push(note(() => fetch(url + path, {method, mode: "no-cors", body, headers})));
    }
  }
  await Promise.all(all);
  return seen;
}"""

# Has a picture, a script and so on of that address; returns how each of them ended.
EMBED = """async ({url, path}) => {
  const made = (name, more) => Object.assign(document.createElement(name), more);
  const all = [made("img", {src: url + path}), made("script", {src: url + path}),
    made("link", {rel: "stylesheet", href: url + path}), made("video", {src: url + path}),
    made("iframe", {src: url + path}), made("object", {data: url + path}), made("embed", {src: url + path})];
  const ended = (one) => new Promise((done) => {
    one.onload = one.onloadeddata = () => done("load");
    one.onerror = () => done("error");
    one.onopen = () => done("open");
  });
  const found = {};
  const ends = all.slice(0, 4).map((one) => [one.localName, ended(one)]);
  document.body.append(...all);
  ends.push(["events", ended(new EventSource(url + path))]);
  ends.push(["socket", ended(new WebSocket(url.replace("http", "ws") + path))]);
  for (const [name, end] of ends) found[name] = await end;
  return found;
}"""

BEACON = """async ({url, asks}) => {
  for (const [method, path, said] of asks) {
    const body = JSON.stringify(said);
    for (const type of ["text/plain", "application/json", ""])
      navigator.sendBeacon(url + path, new Blob([body], {type}));
  }
}"""

SUBMIT = """({url, enctype, target, fields}) => {
  const form = Object.assign(document.createElement("form"), {action: url, method: "post", enctype, target});
  for (const [name, value] of Object.entries(fields))
    form.append(Object.assign(document.createElement("textarea"), {name, value}));
  document.body.append(form);
  form.submit();
}"""
