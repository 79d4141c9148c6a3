// A browser's client, ssm-session from npm, as its README uses it: it acknowledges everything that it gets, repeats
// nothing, pads and digests its frames wrongly, and knows no ClientId (client-wire §6.1).
//
// Arguments: stream URL, token. It is started by tests/end_to_end/other_clients.rs.
"use strict";

const { ssm } = require("ssm-session");
const WebSocket = require("ws");

const [, , url, token] = process.argv;
const termOptions = { rows: 41, cols: 101 };
const socket = new WebSocket(url, { origin: "https://console.example" });
socket.binaryType = "arraybuffer";
let shown = "";
let asked = false;

socket.addEventListener("open", () => ssm.init(socket, { token, termOptions }));
socket.addEventListener("message", (event) => {
  const message = ssm.decode(event.data);
  ssm.sendACK(socket, message);
  if (message.payloadType === 1) {
    shown += Buffer.from(message.payload).toString("latin1");
  } else if (message.payloadType === 17) {
    ssm.sendInitMessage(socket, termOptions);
  }
  if (!asked && message.payloadType === 1) {
    asked = true;
    ssm.sendText(socket, "stty size; seq 1 3000; echo sum-$((40+2)); exit\r");
  }
});
socket.addEventListener("close", () => {
  process.stdout.write(shown, () => process.exit(0));
});
socket.addEventListener("error", (event) => {
  process.stderr.write(`${event.message}\n`);
  process.exit(1);
});
