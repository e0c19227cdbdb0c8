/** Says what a probe of an NFS server finds. Its argument: the target, as JSON. */

import { probeNfs } from "../../../provider/preflight/nfs/index.js";

const [, , target = ""] = process.argv;
void probeNfs(JSON.parse(target) as Parameters<typeof probeNfs>[0]).then(({ kind }) =>
  process.stdout.write(`${kind}\n`),
);
