/** A process that makes VMs by the provider, as the engine's does, and tells when each create returned. */

const provider = require("pulumi-microvm/provider");

const work = {
  async create({ inputs }) {
    const { inputs: checked, failures } = await provider.check({}, inputs);
    if (failures.length > 0) throw new Error(JSON.stringify(failures));
    const begun = performance.now();
    const { id, outs } = await provider.create(checked);
    return { seconds: (performance.now() - begun) / 1000, returnedAt: Date.now(), id, outs };
  },
  async remove({ id, outs }) {
    await provider.delete(id, outs);
  },
};

async function answer({ method, ...request }) {
  try {
    process.send({ answer: await work[method](request) });
  } catch (error) {
    process.send({ error: String(error.stack ?? error) });
  }
}

process.on("message", (request) => {
  void answer(request);
});
