/** How long a probe may take, as a whole and in each step. */

/** Bounds of a probe. */
export interface ProbeLimits {
  /** One connect, or one call with its answer, in milliseconds. Default 2000. */
  readonly stepMs: number;
  /** The whole probe, in milliseconds. Default 5000. */
  readonly totalMs: number;
}

const defaultLimits: ProbeLimits = { stepMs: 2000, totalMs: 5000 };

/** The time of one step: its own, or what is left of the probe's. */
export interface StepTime {
  readonly milliseconds: number;
  /** What ends with it, and after how many seconds. */
  readonly bound: "step" | "probe";
  readonly seconds: number;
}

/** Counts down from its making. */
export class Deadline {
  readonly #limits: ProbeLimits;
  readonly #end: number;

  constructor(limits: ProbeLimits = defaultLimits) {
    this.#limits = limits;
    this.#end = performance.now() + limits.totalMs;
  }

  /** The time that the next step may take. */
  nextStep(): StepTime {
    const { stepMs, totalMs } = this.#limits;
    const left = Math.max(0, this.#end - performance.now());
    return left < stepMs
      ? { milliseconds: left, bound: "probe", seconds: totalMs / 1000 }
      : { milliseconds: stepMs, bound: "step", seconds: stepMs / 1000 };
  }
}
