/**
 * A process that answers for Cloud Hypervisor at a unix socket, as its OpenAPI document says, as far as snapshots go.
 *
 *   node stand-in-snapshots.cjs SOCKET STATE [FAILS…]
 *
 * STATE is that of its guest; FAILS are names of calls that it refuses, or `hang:CALL` for one that it does and does not answer, the
 * first time.
 */

const { appendFileSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:http");
const path = require("node:path");

const [socket, first, ...fails] = process.argv.slice(2);
let state = first;

const config = {
  payload: { kernel: "/old/kernel", cmdline: "console=ttyS0" },
  disks: [{ id: "disk0", path: "/old/stateful.img", num_queues: 1 }],
  net: [{ id: "net0", tap: "mvm-old", mac: "02:00:00:00:00:01", num_queues: 2 }],
  serial: { mode: "File", file: "/old/serial/console" },
  vsock: { cid: 7, socket: "/old/vsock" },
  landlock_enable: true,
  landlock_rules: [{ path: "/old/snapshots", access: "rw" }],
};

const calls = {
  "vm.pause": () => (state = "Paused"),
  "vm.resume": () => (state = "Running"),
  "vm.snapshot": ({ destination_url: url }) => {
    if (state !== "Paused") throw new Error("the VM is not paused");
    const folder = url.replace("file://", "");
    if (readdirSync(folder).length > 0) throw new Error("the folder is not empty");
    writeFileSync(path.join(folder, "config.json"), JSON.stringify(config));
    writeFileSync(path.join(folder, "state.json"), "{}");
    writeFileSync(path.join(folder, "memory-ranges"), "memory");
  },
  "vm.restore": ({ source_url: url }) => {
    const folder = url.replace("file://", "");
    for (const name of ["state.json", "memory-ranges"]) readFileSync(path.join(folder, name));
    writeFileSync(`${socket}.restored`, readFileSync(path.join(folder, "config.json")));
    state = "Paused";
  },
};

/** The answer to a call: a body, or nothing. */
function answer(name, text) {
  if (name === "vmm.ping") return { version: "54.0.0" };
  if (name === "vm.info") return { state, config: {} };
  if (fails.includes(name)) throw new Error(`${name} fails here`);
  calls[name](text === "" ? {} : JSON.parse(text));
  return undefined;
}

createServer((request, response) => {
  let text = "";
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => {
    const name = request.url.replace("/api/v1/", "");
    appendFileSync(`${socket}.calls`, `${name}\n`);
    try {
      const body = answer(name, text);
      const hang = fails.indexOf(`hang:${name}`);
      if (hang !== -1) fails.splice(hang, 1);
      else response.writeHead(body === undefined ? 204 : 200).end(body && JSON.stringify(body));
    } catch (error) {
      response.writeHead(500).end(JSON.stringify(["The call failed", error.message]));
    }
  });
}).listen(socket);
