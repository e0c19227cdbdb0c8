/** The figures as a table, and the machine that they were taken on. */

import { readFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { type Figure, isMet, ratioOf } from "./figures.js";

/** What figures depend on. */
export interface Machine {
  readonly processor: string;
  readonly processors: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly node: string;
  /** Load of the last minute when the bench began: anything beside it shows here. */
  readonly loadBefore: number;
}

export function thisMachine(): Machine {
  const release = readFileSync("/etc/os-release", "utf8");
  return {
    processor: cpus()[0]?.model.trim() ?? "unknown",
    processors: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: /^PRETTY_NAME="?([^"\n]*)/m.exec(release)?.[1] ?? process.platform,
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
}

/** `2 processors (…), 8 GiB, Debian …, Node v20…, guests emulated (TCG)`. */
export function machineText(
  { processors, processor, memoryGiB, system, node }: Machine,
  guests: string,
): string {
  return `${processors} × ${processor}, ${memoryGiB} GiB, ${system}, Node ${node}, guests: ${guests}`;
}

/** One line for each figure. */
export function table(figures: readonly Figure[]): string {
  const rows = [
    ["measure", "baseline", "ours", "ours / baseline", "goal", ""],
    ...figures.map((figure) => [
      figure.name,
      figure.baseline === undefined
        ? ""
        : `${shown(figure.baseline.value, figure)} (${figure.baseline.name})`,
      shown(figure.ours.value, figure),
      ratioOf(figure)?.toFixed(2) ?? "",
      goalText(figure),
      isMet(figure) === undefined ? "" : isMet(figure) ? "met" : "MISSED",
    ]),
  ];
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A value with its unit. */
export function shown(value: number, { unit }: Pick<Figure, "unit">): string {
  const digits = unit === "s" || (unit === "ms" && value < 10) ? 2 : 0;
  return `${value.toFixed(digits)} ${unit}`.trimEnd();
}

function goalText({ goal, unit }: Figure): string {
  if (goal === undefined) return "";
  switch (goal.of) {
    case "ours":
      return `at most ${goal.limit} ${unit}`;
    case "ratio":
      return `at most ${goal.limit.toFixed(2)}`;
    case "speedup":
      return `at most ${(1 / goal.limit).toFixed(2)}`;
    default:
      return goal.of satisfies never;
  }
}
