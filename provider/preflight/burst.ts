/** What files tell, asked for once in a burst of checks: the engine checks hundreds of resources in one second, one after the other. */

/** How long an answer counts, in milliseconds from the question: no person changes a file and looks again in that time. */
const FRESH_MILLISECONDS = 500;

const answers = new Map<string, { readonly answer: Promise<unknown>; readonly askedAt: number }>();

/**
 * The answer to a question, its error too, from this burst or by asking.
 *
 * @param key Names the question; the same key always asks for the same type.
 */
export async function inBurst<Answer>(key: string, ask: () => Promise<Answer>): Promise<Answer> {
  const now = performance.now();
  const found = answers.get(key);
  if (found !== undefined && now - found.askedAt < FRESH_MILLISECONDS) return (await found.answer) as Answer;
  // What is stale serves nobody: a process that lives long would keep it for good.
  for (const [other, { askedAt }] of answers) {
    if (now - askedAt < FRESH_MILLISECONDS) break;
    answers.delete(other);
  }
  const answer = ask();
  answers.delete(key);
  answers.set(key, { answer, askedAt: now });
  return await answer;
}
