"""Send what is due, from cron.

web2py.py -S yourapp -M -R applications/yourapp/private/plugin_mailqueue/send.py
"""

mail.process_queue()
