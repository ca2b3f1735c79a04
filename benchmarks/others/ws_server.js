// The `ws` package as a publish/subscribe server: the least that does what the workloads ask.
// node ws_server.js CLIENT_PORT ADMIN_PORT
const http = require("http");
const { WebSocketServer } = require("ws");

const [clientPort, adminPort] = process.argv.slice(2).map(Number);
const channels = new Map();

new WebSocketServer({ port: clientPort, host: "127.0.0.1", perMessageDeflate: false }).on("connection", (browser) => {
  browser.on("message", (text) => {
    const { command, data, id } = JSON.parse(text);
    if (command === "subscribe") {
      for (const name of data) {
        if (!channels.has(name)) channels.set(name, new Set());
        channels.get(name).add(browser);
        browser.on("close", () => channels.get(name).delete(browser));
      }
    }
    if (id !== undefined) browser.send(JSON.stringify({ type: "ack", id }));
  });
});

http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const text = Buffer.concat(parts).toString();
    const message = JSON.parse(text);
    for (const name of message.subscribers) {
      for (const browser of channels.get(name) ?? []) browser.send(text);
    }
    response.setHeader("Content-Type", "application/json");
    response.end("{}");
  });
}).listen(adminPort, "127.0.0.1");
