/** What the rest of the provider uses of the NFS probe. */

export { type Description, describe } from "./describe.js";
export type { Architecture, FileAttributes, InitProgram, NfsFinding, NfsTarget } from "./finding.js";
export { type ProbeLimits, type ProbeRequest, probeNfs } from "./probe.js";
