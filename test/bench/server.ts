/** The REST server against Arrakis' own: reads of the list, POST to answer, memory; and what many VMs leave behind in it. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

import { namespaceEnvironment, whyNoNamespace } from "../lab/namespace.js";
import { cloudHypervisorBinary, isOnPath } from "../lab/programs.js";
import { compared, type Figure } from "./figures.js";
import type { OfServer, ServerOrder, ServerSamples } from "./server-process.js";

/** Half of the other's rate. */
const READ_LIMIT = 2;
const HEAP_LIMIT = 1.1;
/** Connections to callers come and go; one that was lost with each VM would be hundreds. */
const DESCRIPTOR_LIMIT = 1.5;
const VMS = 100;

/** How much is measured. */
export interface ServerBench {
  readonly posts: number;
  readonly rounds: number;
  /** Creates and deletes. */
  readonly cycles: number;
  readonly say: (text: string) => void;
}

/** No figures, and the reason, where Cloud Hypervisor or the right to make taps is missing. */
export async function benchServer({ posts, rounds, cycles, say }: ServerBench): Promise<Figure[]> {
  const binary = cloudHypervisorBinary();
  const reason =
    binary === undefined
      ? "there is no cloud-hypervisor on PATH, and CLOUD_HYPERVISOR is not set"
      : whyNoNamespace();
  if (binary === undefined || reason !== undefined) {
    say(`server: left out: ${reason}`);
    return [];
  }
  const named = process.env["ARRAKIS_RESTSERVER"];
  if (named !== undefined && !isOnPath("iptables"))
    say("server: Arrakis is left out: iptables is not installed");
  const arrakis = isOnPath("iptables") ? named : undefined;
  if (arrakis === undefined)
    say("server: ARRAKIS_RESTSERVER is not set, so that there is nothing to hold it against");
  const order: ServerOrder = { binary, arrakis, vms: VMS, posts, rounds, cycles };
  return figuresOf(await measured(order), order);
}

async function measured(order: ServerOrder): Promise<ServerSamples> {
  const program = join(__dirname, "server-process.ts");
  const args = ["--net", process.execPath, "--import", "tsx", program, JSON.stringify(order)];
  const child = spawn("unshare", args, { env: namespaceEnvironment(), stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const [status] = await once(child, "close");
  if (status !== 0) throw new Error(`the bench of the server ended with status ${String(status)}`);
  return JSON.parse(text) as ServerSamples;
}

function figuresOf(
  { ours, arrakis, heapsMiB, descriptors }: ServerSamples,
  { vms, cycles }: ServerOrder,
): Figure[] {
  const list = `GET /v1/vms with ${vms} VMs`;
  const beside = (
    name: string,
    unit: Figure["unit"],
    of: (server: OfServer) => readonly number[],
    goal?: Figure["goal"],
  ): Figure =>
    arrakis === undefined
      ? { name, unit, ours: compared(name, unit, { name: "", samples: of(ours) }, of(ours)).ours }
      : compared(name, unit, { name: "Arrakis", samples: of(arrakis) }, of(ours), goal);
  return [
    beside(`${list}: time for one under load`, "ms", millisecondsOf, { of: "ratio", limit: READ_LIMIT }),
    beside(`${list}: slowest hundredth`, "ms", ({ p99s }) => p99s),
    beside("POST to answer, scripted guest", "s", ({ posts }) => posts),
    beside(`server's memory per VM, of ${vms}`, "KiB", ({ emptyMiB, fullMiB }) => [
      ((fullMiB - emptyMiB) * 1024) / vms,
    ]),
    compared(
      `server's heap after ${cycles} VMs came and went`,
      "MiB",
      { name: "after 100", samples: [heapsMiB[0]] },
      [heapsMiB[1]],
      {
        of: "ratio",
        limit: HEAP_LIMIT,
      },
    ),
    compared(
      `its open descriptors then`,
      "",
      { name: "after 100", samples: [descriptors[0]] },
      [descriptors[1]],
      {
        of: "ratio",
        limit: DESCRIPTOR_LIMIT,
      },
    ),
  ];
}

/** Time of one request, of each round. */
function millisecondsOf({ rates }: OfServer): number[] {
  return rates.map((rate) => 1000 / rate);
}
