/** How long a probe may take, as a whole and in each step. */

/** Bounds of a probe. */
export interface ProbeLimits {
  /** One connect, or one call with its answer, in milliseconds. Default 2000. */
  readonly stepMs: number;
  /** The whole probe, in milliseconds. Default 5000. */
  readonly totalMs: number;
}

const defaultLimits: ProbeLimits = { stepMs: 2000, totalMs: 5000 };

/** Counts down from its making. */
export class Deadline {
  readonly #stepMs: number;
  readonly #end: number;

  constructor({ stepMs, totalMs }: ProbeLimits = defaultLimits) {
    this.#stepMs = stepMs;
    this.#end = performance.now() + totalMs;
  }

  /** Milliseconds that the next step may take; 0 when the time is up. */
  nextStepMs(): number {
    return Math.max(0, Math.min(this.#stepMs, this.#end - performance.now()));
  }
}
