/**
 * Preloaded (`node --require`) into the processes of the engine's bench: the back end of VMs, as soon as it is loaded, does
 * nothing and answers at once. All else of the provider is as it is shipped.
 */

const path = require("node:path");

const backends = path.join(__dirname, "../../dist/provider/backends/index.js");
const load = require.extensions[".js"];

const outputs = (stateDirectory, state) => ({
  state,
  rootEvidence: "proved",
  guestIp: "10.0.2.15",
  hostId: "0".repeat(32),
  stateDirectory,
  consoleLog: path.join(stateDirectory, "still/console.log"),
  accelerator: "tcg",
  pid: 1,
});

require.extensions[".js"] = (module, file) => {
  load(module, file);
  if (file !== backends) return;
  Object.assign(module.exports.backendOf({ type: "qemu" }), {
    create: async ({ stateDirectory, settings }) => outputs(stateDirectory, settings.powerState),
    observe: async ({ stateDirectory }) => outputs(stateDirectory, "running"),
    update: async ({ reference, settings }) => outputs(reference.stateDirectory, settings.powerState),
    remove: async () => {},
  });
};
