/** What the rest of the provider uses of the NFS probe. */

export { getAttributes, type HandleFinding, type HandleOptions } from "./attributes.js";
export type { ProbeLimits } from "./deadline.js";
export { type Description, describe } from "./describe.js";
export type { Architecture, FileAttributes, InitProgram, NfsFinding, NfsTarget } from "./finding.js";
export { type ProbeRequest, probeNfs } from "./probe.js";
export { type HandlePlace, type HandleState, handleState } from "./handle-state.js";
export { forgetProbes, probeOnce } from "./share.js";
