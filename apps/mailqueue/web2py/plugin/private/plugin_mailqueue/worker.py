"""Send mail as it comes.

web2py.py -S yourapp -M -R applications/yourapp/private/plugin_mailqueue/worker.py
"""

mail.work()
