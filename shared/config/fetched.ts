/** Owns which addresses of a configuration the edge fetches: public ones by HTTPS, and those of its own host. */
import { z } from 'zod';

export const fetched = z
  .string()
  .refine(isFetchable, 'write an https address (http only for 127.0.0.1, ::1 or localhost)');

function isFetchable(text: string): boolean {
  const url = URL.parse(text);
  if (url === null) return false;
  if (url.username !== '' || url.password !== '' || url.hash !== '') return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopbackHost(url.hostname));
}

/** Whether a URL's `hostname` is the host itself. */
export const isLoopbackHost = (hostname: string): boolean => ['localhost', '127.0.0.1', '[::1]'].includes(hostname);
