import { describe, it } from "vitest";

import { whyNoNfsServer } from "../../../lab/nfs.js";
import { isOnPath } from "../../../lab/programs.js";
import { testLocalBackend } from "../contract.js";

const title = "arrakis, on a server of ours with qemu";
const reason = isOnPath("qemu-system-x86_64") ? whyNoNfsServer() : "qemu-system-x86_64 is not installed";

if (reason === undefined) testLocalBackend(title, "rest");
else describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
