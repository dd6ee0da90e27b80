"""The ports of a pod and the names by which its Service finds them."""

# The application listens here unless it is the placeholder.
APP_PORT = 3000
POSTGREST_PORT = 3001
SERVICE_PORT = 80

# The Service targets names, so that the placeholder may listen elsewhere than an application does.
HTTP_PORT_NAME = "http"
POSTGREST_PORT_NAME = "postgrest"
