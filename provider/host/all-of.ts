/** Several things at once. */

/** Waits for all, also where one has failed: nothing goes on behind the caller's back. Throws what the first one threw. */
export async function allOf<const Works extends readonly Promise<unknown>[]>(
  works: Works,
): Promise<{ -readonly [Index in keyof Works]: Awaited<Works[Index]> }> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}
