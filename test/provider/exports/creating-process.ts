/** The provider's process as the engine has it, making one export: the tests kill it. Its arguments: the type, the checked inputs. */

import { create as createAgentFs } from "../../../provider/agentfs.js";
import { create as createNfsExport } from "../../../provider/nfs.js";

const [type, inputs = "{}"] = process.argv.slice(2);
process.stdout.write("begin\n");

async function run(): Promise<void> {
  try {
    await (type === "AgentFs" ? createAgentFs : createNfsExport)(JSON.parse(inputs));
    process.stdout.write("done\n");
    // The engine would go on with other resources: the process lives until it is killed.
    setInterval(() => undefined, 1000);
  } catch (error) {
    process.stdout.write(`failed ${String(error)}\n`);
  }
}

void run();
