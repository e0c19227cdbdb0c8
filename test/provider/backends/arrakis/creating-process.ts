/** A create on a server, in a process that a test kills: `tsx creating-process.ts URL STATE_DIRECTORY IS_NAME_GENERATED`. */

import { arrakis } from "../../../../provider/backends/arrakis/arrakis.js";
import { asking } from "./asking.js";

const [url = "", stateDirectory = "", isNameGenerated] = process.argv.slice(2);

async function create(): Promise<void> {
  const { request } = await asking({ isNameGenerated: isNameGenerated === "true" }, stateDirectory);
  await arrakis({ type: "arrakis", url }).create(request);
}

void create();
