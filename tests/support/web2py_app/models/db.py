# By the conventions of web2py's own welcome app; what a test wants otherwise is in private/site.json.
import json
import os

from gluon import current
from gluon.tools import Auth

with open(os.path.join(request.folder, "private", "site.json")) as file:
    site = json.load(file)

db = DAL(site["uri"], pool_size=1, check_reserved=["all"])
auth = Auth(db, host_names=["127.0.0.1:*"])
auth.define_tables(username=site["usernames"], signature=False)
if site["mailer"] == "queued":
    from plugin_mailqueue import QueuedMail

    mail = current.mail = auth.settings.mailer = QueuedMail(db, **site["mail"])
    mail.enable_admin(auth, readers="auditors")
    if site["approval"]:
        mail.enable_approval(auth, readers="auditors", **site["approval"])
else:
    from gluon.tools import Mail

    mail = current.mail = auth.settings.mailer = Mail(**site["mail"])

auth.settings.registration_requires_verification = True
auth.settings.reset_password_requires_verification = True
auth.settings.bulk_register_enabled = True
auth.settings.update(site["auth"])

if site["scheduler"]:
    from gluon.scheduler import Scheduler

    scheduler = Scheduler(db, heartbeat=1)
    mailqueue_send = mail.enable_scheduler(scheduler, period=1)
