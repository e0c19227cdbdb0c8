/** Every route that the server has: the API's, its guests', and what describes and shows them. */

import { guestRoutes } from "./guest-routes.js";
import { openApiText } from "./openapi.js";
import { consoleRoute, pageRoutes } from "./page-routes.js";
import { Content, type Route, route } from "./route.js";
import { routes } from "./routes.js";

const apiRoutes: readonly Route[] = [...routes, ...guestRoutes, consoleRoute];

export const allRoutes: readonly Route[] = [
  ...apiRoutes,
  route({
    method: "GET",
    path: "/openapi.yaml",
    summary: "This API as an OpenAPI document",
    open: true,
    answer: async () => new Content("application/yaml", await openApiText(apiRoutes)),
  }),
  ...pageRoutes,
];
