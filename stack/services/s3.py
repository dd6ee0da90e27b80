"""The S3 server versitygw, with versioning and accounts."""

from stack.processes import Command, run
from stack.services.base import Service, answers

ROOT_KEY = "root"
# The worker's own account, with role `admin`. With `userplus` versitygw refuses a bucket to its owner once the bucket
# has a policy that does not name the owner (proved with 1.8.0). Public buckets have such a policy.
ACCOUNT_KEY = "plattr"
ACCOUNT_ROLE = "admin"


class S3(Service):
    """versitygw on a folder. Its file system must support extended attributes."""

    name = "s3"
    ports = ("s3",)

    def prepare(self) -> None:
        """Create the three folders."""
        super().prepare()
        for part in ("objects", "versions", "accounts"):
            (self.folder / part).mkdir(exist_ok=True)

    def command(self) -> Command:
        """Start the gateway. All paths are absolute, because it changes to its data folder."""
        return Command(
            arguments=(
                *(self.site.tool("versitygw"), "--port", f"127.0.0.1:{self.site.port('s3')}", "--health", "/health"),
                *("--quiet", "--keep-alive", "--iam-dir", str(self.folder / "accounts")),
                *("posix", "--versioning-dir", str(self.folder / "versions"), str(self.folder / "objects")),
            ),
            environment={"ROOT_ACCESS_KEY": ROOT_KEY, "ROOT_SECRET_KEY": self.site.credential("s3-root")},
            folder=self.folder,
        )

    def is_healthy(self) -> bool:
        """Tell whether its health page answers."""
        return answers(f"{self.site.url('s3')}/health")

    def set_up(self) -> None:
        """Create the worker's account."""
        if ACCOUNT_KEY not in self._admin("list-users").split():
            secret = self.site.credential("s3-account")
            self._admin("create-user", "-a", ACCOUNT_KEY, "-s", secret, "-r", ACCOUNT_ROLE)

    def _admin(self, *arguments: str) -> str:
        return run(
            Command(
                arguments=(self.site.tool("versitygw"), "admin", *arguments),
                environment={
                    "ADMIN_ENDPOINT_URL": self.site.url("s3"),
                    "ADMIN_ACCESS_KEY": ROOT_KEY,
                    "ADMIN_SECRET_KEY": self.site.credential("s3-root"),
                },
            )
        )
