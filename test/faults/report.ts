/** What each kill did and what was found after it, one line of JSON each, in a folder that git ignores. */

import { appendFileSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";

/** One kill. */
export interface Kill {
  readonly seed: number;
  readonly life: number;
  readonly operation: string;
  readonly step: string;
  /** How long after the step, in milliseconds. */
  readonly delay: number;
  readonly victim: "provider" | "vmm";
  /** How the operation ended: `done` when the kill came too late to stop it, `failed` when it saw its VMM die. */
  readonly how: string;
  /** What was there right after the kill. */
  readonly after: {
    readonly phase: string;
    readonly processes: number;
    readonly leases: number;
    readonly entries: string[];
  };
  /** The next up was killed as well, so long after its begin, in milliseconds. */
  readonly again?: number;
  /** What the up after it did. */
  readonly next: string;
  /** What was wrong in the end; empty when nothing was. */
  readonly faults: string[];
  /** Kill to verdict. */
  readonly milliseconds: number;
}

export class Report {
  readonly path: string;
  readonly #kills: Kill[] = [];

  constructor(seed: number) {
    const folder = resolve(__dirname, "../../.lab/faults");
    mkdirSync(folder, { recursive: true });
    this.path = join(folder, `kills-${seed}.jsonl`);
  }

  add(kill: Kill): void {
    this.#kills.push(kill);
    appendFileSync(this.path, `${JSON.stringify(kill)}\n`);
  }

  /** Kills and faults by operation and step. */
  summary(): string {
    const rows = new Map<string, { kills: number; faults: number }>();
    for (const { operation, step, victim, faults } of this.#kills) {
      const name = `${operation}: ${step}${victim === "vmm" ? " (VMM killed)" : ""}`;
      const row = rows.get(name) ?? { kills: 0, faults: 0 };
      rows.set(name, { kills: row.kills + 1, faults: row.faults + (faults.length > 0 ? 1 : 0) });
    }
    const lines = [...rows]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(
        ([name, { kills, faults }]) =>
          `${String(kills).padStart(4)} kills ${String(faults).padStart(3)} faults  ${name}`,
      );
    const faults = this.#kills.filter((kill) => kill.faults.length > 0).length;
    return [...lines, `${this.#kills.length} kills, ${faults} faults; each in ${this.path}`].join("\n");
  }
}
