/** One thing at a time for each VM: what waits for its turn goes on in the order of its arrival. */

export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  /** Does the work when all that came before it for this name is over. */
  async take<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(name) ?? Promise.resolve();
    const result = before.then(work);
    // The next one waits for the end of this, however it ends.
    const last = result.then(nothing, nothing);
    this.#last.set(name, last);
    try {
      return await result;
    } finally {
      if (this.#last.get(name) === last) this.#last.delete(name);
    }
  }

  /** Waits for the end of all that has been taken so far. */
  async over(): Promise<void> {
    await Promise.all(this.#last.values());
  }
}

function nothing(): void {
  // Its caller has the result.
}
