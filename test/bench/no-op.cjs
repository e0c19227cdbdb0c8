/** A dynamic provider that does nothing: what resources cost in the engine, whoever provides them. */

exports.check = async (_olds, news) => ({ inputs: news, failures: [] });
exports.diff = async () => ({ changes: false });
exports.create = async (inputs) => ({ id: "no-op", outs: inputs });
exports.read = async (id, props) => ({ id, props });
exports.update = async (_id, _olds, news) => ({ outs: news });
exports.delete = async () => {};
