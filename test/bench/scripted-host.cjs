/**
 * Preloaded (`node --require`) into the REST server of the bench: its guests are scripted ones, which run on a KVM that runs no Linux, so
 * the look at KVM is left out. SIGUSR2 collects the garbage. All else of the server is as it is shipped.
 */

const path = require("node:path");

const looked = path.join(__dirname, "../../dist/provider/preflight/cloud-hypervisor.js");
const load = require.extensions[".js"];

require.extensions[".js"] = (module, file) => {
  load(module, file);
  if (file !== looked) return;
  const { usableCloudHypervisor } = module.exports;
  Object.assign(module.exports, { assertKvm: async () => {}, cloudHypervisorHost: usableCloudHypervisor });
};

process.on("SIGUSR2", () => global.gc());
