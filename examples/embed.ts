import { createServer } from 'node:http';
import { createRouter } from 'moorage';

const port = Number(process.env.PORT ?? 3000);
const router = await createRouter(
  { mcpServers: { time: { runtime: 'edge', tools: `${import.meta.dirname}/../servers/time.ts` } } },
  { baseUrl: `http://localhost:${port}/tools` },
);
createServer(router.handler).listen(port, 'localhost', () => console.log(JSON.stringify(router.clientConfig())));
process.once('SIGTERM', () => void router.close().then(() => process.exit()));
