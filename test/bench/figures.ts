/** Figures: samples of two sides taken in turn, their medians, and what is asked of their ratio. */

/** One line of the report. */
export interface Figure {
  /** `preview of 300`. */
  readonly name: string;
  readonly unit: "s" | "ms" | "bytes" | "KiB" | "MiB" | "";
  /** What ours is held against; absent where the figure stands for itself. */
  readonly baseline?: { readonly name: string; readonly value: number; readonly samples: readonly number[] };
  readonly ours: { readonly value: number; readonly samples: readonly number[] };
  /** What is asked: of ours / baseline, of baseline / ours, or of ours itself. */
  readonly goal?: { readonly of: "ratio" | "speedup" | "ours"; readonly limit: number };
}

/** The middle one, or the mean of the two in the middle. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]];
  if (low === undefined || high === undefined) throw new Error("no samples");
  return (low + high) / 2;
}

/** The smallest sample that a share of all samples does not pass (nearest rank). */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const found = sorted[Math.ceil(share * sorted.length) - 1];
  if (found === undefined) throw new Error("no samples");
  return found;
}

/** A figure of two sides, by their medians. */
export function compared(
  name: string,
  unit: Figure["unit"],
  baseline: { readonly name: string; readonly samples: readonly number[] },
  ours: readonly number[],
  goal?: Figure["goal"],
): Figure {
  return {
    name,
    unit,
    baseline: { ...baseline, value: median(baseline.samples) },
    ours: { value: median(ours), samples: ours },
    goal,
  };
}

/** Ours / baseline. */
export function ratioOf({ baseline, ours }: Figure): number | undefined {
  return baseline === undefined ? undefined : ours.value / baseline.value;
}

/** Whether the goal is met; undefined where there is none. */
export function isMet(figure: Figure): boolean | undefined {
  const { goal, ours, baseline } = figure;
  if (goal === undefined) return undefined;
  switch (goal.of) {
    case "ours":
      return ours.value <= goal.limit;
    case "ratio":
      return baseline !== undefined && ours.value / baseline.value <= goal.limit;
    case "speedup":
      return baseline !== undefined && baseline.value / ours.value >= goal.limit;
    default:
      return goal.of satisfies never;
  }
}
