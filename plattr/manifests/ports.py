"""The ports of a pod, and the names by which its Service finds them."""

# The application listens here. The placeholder may listen elsewhere.
APP_PORT = 3000
POSTGREST_PORT = 3001
SERVICE_PORT = 80

# The Service targets port names, so that the placeholder may listen on another port than an application.
HTTP_PORT_NAME = "http"
POSTGREST_PORT_NAME = "postgrest"
