/** Owns how the administration tells of tools that are not as they were accepted. */
import { z } from 'zod';

/** Parts of a tool that make its definition (2025-11-25 and 2026-07-28, "Tool"). */
export const DEFINING = ['title', 'description', 'inputSchema', 'outputSchema', 'annotations'] as const;

export const toolDifference = z.object({
  name: z.string(),
  change: z.enum(['changed', 'added', 'removed']),
  /** The tool as it was accepted, as JSON text. */
  accepted: z.string().nullable(),
  /** As it is listed now. */
  seen: z.string().nullable(),
  digest: z.string().nullable(),
});
export type ToolDifference = z.infer<typeof toolDifference>;

/** `null` where no client has listed the server's tools since it was deployed. */
export const toolDifferences = z
  .object({
    set: z.object({ deployment: z.string(), since: z.string() }),
    /** What waits for its owner. */
    held: z.array(toolDifference),
    /** What came with the deployment, compared with the one before it. */
    deployed: z.array(toolDifference),
  })
  .nullable();
export type ToolDifferences = z.infer<typeof toolDifferences>;

/** What is accepted: tools by name, with the digest of what their owner saw. */
export const acceptedTools = z.object({
  tools: z.array(z.object({ name: z.string().max(1024), digest: z.string().length(64) })).max(2000),
});
